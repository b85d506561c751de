"""Training a selection of the tokens: a locator, a prepared copy, coarse and fine."""
