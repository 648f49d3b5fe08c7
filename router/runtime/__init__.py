"""What happens over time: the loop around the scheduler, and the lives of predictions."""
