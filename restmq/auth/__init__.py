"""Who may do what: the rules of ``acl.conf``, the one access check with tokens, and requests from other sites."""
