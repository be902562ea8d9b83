output "ip_address" {
  description = "Public IPv4 address of the server."
  value       = hcloud_server.this.ipv4_address
}

output "passwords_command" {
  description = "Shows the passwords. They were made on the server and are nowhere else: neither in this state nor in an output."
  value       = "ssh root@${hcloud_server.this.ipv4_address} cat /srv/cryptoviz/bundle/.env"
}

output "status_command" {
  description = "Shows how far the first start has come, then how the pipeline stands."
  value       = "ssh root@${hcloud_server.this.ipv4_address} 'cloud-init status --wait; cd /srv/cryptoviz/bundle && docker compose ps'"
}

output "timescaledb_edition" {
  description = "Edition of TimescaleDB on the server: community has all features, apache lacks policies and compression."
  value       = "community"
}

output "tunnel_command" {
  description = "While it runs, Grafana is at localhost:3000, PostgreSQL at localhost:5432 and Kafka at localhost:9092 of your machine."
  value       = "ssh -N -L 3000:localhost:3000 -L 5432:localhost:5432 -L 9092:localhost:9092 root@${hcloud_server.this.ipv4_address}"
}
