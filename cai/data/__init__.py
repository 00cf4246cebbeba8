"""Records, corpora and the files that ship with the package."""
