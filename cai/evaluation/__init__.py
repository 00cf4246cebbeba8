"""What the evaluate stage uses: systems, judges, measures, the paper's tests."""
