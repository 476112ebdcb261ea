"""The objective, term by term, and the networks it takes: VGG-19 and the discriminators."""
