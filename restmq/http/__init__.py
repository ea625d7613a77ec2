"""HTTP/1.1: strict parsing with limits, one request at a time per connection, deadlines, and response heads.

The package knows no queue. It hands each complete ``request.Request`` to the application, which sends its response
through the request's connection.
"""
