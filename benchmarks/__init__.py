"""Speed and accuracy, measured: nothing here is imported by the package or runs in the tests."""
