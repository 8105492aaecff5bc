"""The only place with clocks, processes and sensors."""
