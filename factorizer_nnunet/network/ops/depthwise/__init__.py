"""Depthwise convolution on channels-last volumes."""
