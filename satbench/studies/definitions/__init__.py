"""The definitions of the studies: one module each, with a function from a recipe to a `Study`."""
