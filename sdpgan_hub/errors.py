"""The one exception that this package raises for what a user can put right."""


class SDPGANError(ValueError):
    """An input, a file or a setting that cannot be used; the message names it and the way out in one sentence."""


class SDPGANWarning(UserWarning):
    """What was done with an input that is not wholly in order; the message names it, in one sentence."""
