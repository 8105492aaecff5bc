"""Read the data folders and model files into domain types; fetch what they name."""
