# One server that runs docker-compose.yml, its data on a volume of its own. Nothing but SSH is reachable from outside.

resource "hcloud_ssh_key" "admin" {
  name       = "${var.name}-admin"
  public_key = trimspace(var.ssh_public_key)
}

resource "hcloud_firewall" "this" {
  name = var.name

  rule {
    description = "SSH for the administrators"
    direction   = "in"
    protocol    = "tcp"
    port        = "22"
    source_ips  = var.admin_cidrs
  }
}

# The data outlives the server: replacing the server keeps it, and its passwords with it.
resource "hcloud_volume" "data" {
  name              = "${var.name}-data"
  location          = var.location
  size              = var.volume_size
  format            = "ext4"
  delete_protection = var.delete_protection
}

resource "hcloud_server" "this" {
  name         = var.name
  location     = var.location
  server_type  = var.server_type
  image        = "ubuntu-24.04"
  backups      = var.backups
  ssh_keys     = [hcloud_ssh_key.admin.id]
  firewall_ids = [hcloud_firewall.this.id]

  user_data = templatefile("${path.module}/templates/cloud-init.yaml.tftpl", {
    device     = hcloud_volume.data.linux_device
    repository = var.repository
    revision   = var.revision
  })

  lifecycle {
    # Read at the first start only; afterwards it would replace the server for nothing.
    ignore_changes = [user_data, ssh_keys]
  }
}

resource "hcloud_volume_attachment" "data" {
  volume_id = hcloud_volume.data.id
  server_id = hcloud_server.this.id
  automount = false
}
