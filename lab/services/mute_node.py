#!/usr/bin/env python3
"""mute_node.py ADDRESS PORT: the node that hangs. It accepts every connection and never says a word."""
import socket
import sys

listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=64)
kept = []
while True:
    kept.append(listener.accept()[0])
