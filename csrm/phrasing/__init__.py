"""The same rules in other words, turned into permissions, mixed: wording must not be a cue."""
