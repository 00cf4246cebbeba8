"""What Lightning wants: modules, batches and a fit that resumes to the bit."""
