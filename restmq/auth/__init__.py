"""Access control: the rules of ``acl.conf``, the single access check, and requests from other web sites."""
