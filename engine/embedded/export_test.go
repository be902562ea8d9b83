package embedded

// Scripts returns what setUp runs on a server, and on its database.
func Scripts() (roles, rights string) { return rolesSQL, rightsSQL }
