"""Taking results away: models and data in the forms that other people's programs read."""
