// Package killtest kills the engine, PostgreSQL and Kafka while records flow, and counts the rows afterwards. It holds
// tests only; they need the jars of Apache Kafka in CRYPTOVIZ_TEST_KAFKA_LIB:
//
//	go test ./engine/killtest -v -kills 500 -timeout 2h
package killtest
