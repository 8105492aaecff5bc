"""Models: names, shapes, files, quantisations, and where their weights come from."""
