"""The trusted side of the sandbox: it runs tests, starts the isolation, and sees plain data of a program's only."""
