"""What every other package may use: errors, files written atomically, processes, interrupts, wording of messages."""
