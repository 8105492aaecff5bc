"""How well confidences match what came: errors with bins and without, paired differences, scaling, selection."""
