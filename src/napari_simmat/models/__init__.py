"""Networks: SAM variants and `tiny`, the transfer layer, tuning strategies."""
