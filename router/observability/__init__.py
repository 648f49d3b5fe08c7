"""Reports what happened, to metrics and to the event stream. It decides nothing."""
