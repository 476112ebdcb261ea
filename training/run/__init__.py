"""One run: settings, command line, schedule, checkpoints, health, samples and provenance."""
