"""Where people compare the systems of finished runs, and talk to them."""
