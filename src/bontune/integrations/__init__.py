"""The objectives inside the engines that people run on clusters: TRL and verl."""
