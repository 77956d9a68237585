"""What clients can ask of a session, one module for each subject; ``ipnd.session`` has the table of all."""
