"""Speed and memory of the network against its references, and how far it is from what the machine allows."""
