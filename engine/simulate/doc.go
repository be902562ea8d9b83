// Package simulate plays the exchanges over a real socket on the loopback interface, so that a pipeline runs without a
// network through the same fetch code as with one. It knows no exchange by name.
//
// Simulated: it serves each definition's own fixtures (NAME.reply.json, NAME.reply.html, NAME.frames.ndjson). What the
// row block reads as a time becomes the clock's now in the form in which it was written; what it reads as a price
// (columns of unit "price") follows a walk that is a pure function of seed, asset and time, so that a restart continues
// it. The markets are those that the definition's own query or subscription asks for: one that the fixture lacks is
// made from another one's record.
//
// Recorded: it plays captured traffic instead, one JSON object a line, {"received": unix seconds, "message": the
// frame}, at its own pace times the clock's speed, with times moved to now, over and over. Prices stay as they were
// recorded.
package simulate
