"""A package, since its files have the names of those in other folders of tests."""
