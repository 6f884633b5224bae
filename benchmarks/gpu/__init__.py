"""Everything that has to be measured on a GPU, in one command that can be stopped and run again."""
