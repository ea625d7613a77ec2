"""HTTP/1.1 on the wire: strict parsing with limits, one request at a time per connection, deadlines, answers.

It knows no queue. Handlers get a ``request.Request`` and give bytes back through its connection.
"""
