"""Best-of-N in use: a class that draws N candidates and returns the verifier's pick."""
