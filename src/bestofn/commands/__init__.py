"""What the commands do, without the command line: a file for each."""
