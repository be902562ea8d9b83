// Package shadow asks the server what it makes of declared SQL: in a schema that has what the plan will make, in a
// transaction that is rolled back.
package shadow
