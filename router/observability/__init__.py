"""What happened, told to metrics and to the event stream. It decides nothing."""
