"""What is the same for every task: configs, training, runs on disk, studies, tracking and plots."""
