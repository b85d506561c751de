"""Training what looks at some of the tokens: a locator, a prepared copy, coarse and fine."""
