"""Before a machine is rented: does a configuration fit it, and what bounds it."""
