"""A reward that an untrained policy gets parts of, so that gradients are not 0."""


def early(group):
    """The share of letters of the first half of the alphabet."""
    return [sum(c in "abcdefghijklm" for c in text.lower()) / (1 + len(text)) for text in group.responses]
