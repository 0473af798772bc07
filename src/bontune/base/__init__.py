"""What every room stands on: errors, files, signals, workers, and the vocabulary of problems and grades."""
