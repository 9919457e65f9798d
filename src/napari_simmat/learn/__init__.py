"""How models are made: scenes that are drawn, pre-training, training and figures."""
