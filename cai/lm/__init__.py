"""Language models: loading, adapters, chat formats, sampling and scoring."""
