"""The comparisons of SimMAT's paper: experiments, runs, tables, plots."""
