"""What each flag says, in a sentence a reader of the report can act on."""

from __future__ import annotations

FLAG_MEANINGS: dict[str, str] = {
    "score-not-repeatable": "A model that says it is deterministic gave one image two scores: every shift holds noise.",
    "batch-dependent": "An image's score depends on its neighbors in the batch.",
    "zero-gradient": "For many images every gradient was exactly zero: the attack had nothing to follow.",
    "not-finite": "Some scores were NaN or infinite: the row speaks of fewer images than it seems to.",
    "out-of-declared-range": "Clean scores leave the declared range, by which scaled shifts are divided.",
    "control-noise-wins": "Random noise of the same size moves the scores further: the attack did not attack.",
    "black-box-wins": "An attack without gradients moves the scores further than this one with them:"
    " the gradient is masked.",
    "oblivious-wins": "Images made on the bare model move the defended one further than images made on itself:"
    " the gradient is masked and the row too good.",
    "larger-eps-weaker": "The same attack does more with a smaller eps: it did not find what was there.",
    "more-steps-weaker": "The same attack does more with fewer steps: its search wanders.",
    "degenerate": "Scores are constant, so correlations are undefined.",
    "collapsed": "Scores hardly vary against the spread of the opinion scores: a small shift then means nothing.",
    "trained-on-test": "The model declares that it was trained on images of this test set.",
    "certificate-violated": "An attacked score lies outside what the defense certifies.",
}
"""One sentence per flag of `iqa_robust.records.FLAG_NAMES`."""
