# terraform test: no account, nothing is created.
mock_provider "hcloud" {
  mock_resource "hcloud_ssh_key" { defaults = { id = "1" } }
  mock_resource "hcloud_firewall" { defaults = { id = "2" } }
  mock_resource "hcloud_volume" { defaults = { id = "3", linux_device = "/dev/disk/by-id/scsi-0HC_Volume_3" } }
  mock_resource "hcloud_server" { defaults = { id = "4", ipv4_address = "203.0.113.9" } }
}

variables {
  admin_cidrs    = ["203.0.113.7/32"]
  revision       = "v0.1.0"
  ssh_public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExample admin"
}

run "server" {
  assert {
    condition     = length(hcloud_firewall.this.rule) == 1 && one(hcloud_firewall.this.rule).port == "22"
    error_message = "only SSH may be reachable"
  }
  assert {
    condition     = one(hcloud_firewall.this.rule).source_ips == toset(["203.0.113.7/32"])
    error_message = "SSH is for the administrators alone"
  }
  assert {
    condition     = length(hcloud_server.this.user_data) < 32768
    error_message = "the provider takes at most 32 KiB of user data"
  }
  assert {
    condition     = yamldecode(hcloud_server.this.user_data).ssh_pwauth == false
    error_message = "the user data is YAML, and passwords do not open SSH"
  }
  assert {
    condition     = strcontains(hcloud_server.this.user_data, "scsi-0HC_Volume_3") && !strcontains(hcloud_server.this.user_data, "PASSWORD=")
    error_message = "the user data names the volume and holds no password"
  }
  assert {
    condition     = output.timescaledb_edition == "community" && strcontains(output.tunnel_command, "203.0.113.9")
    error_message = "the outputs speak of this server"
  }
}

run "whole_internet" {
  command = plan
  variables {
    admin_cidrs = ["0.0.0.0/0"]
  }
  expect_failures = [var.admin_cidrs]
}

run "no_network" {
  command = plan
  variables {
    admin_cidrs = ["home"]
  }
  expect_failures = [var.admin_cidrs]
}

run "private_key" {
  command = plan
  variables {
    ssh_public_key = "-----BEGIN OPENSSH PRIVATE KEY-----"
  }
  expect_failures = [var.ssh_public_key]
}

run "password_in_address" {
  command = plan
  variables {
    repository = "https://user:secret@example.com/x.git"
  }
  expect_failures = [var.repository]
}

run "shell_in_revision" {
  command = plan
  variables {
    revision = "v1'; reboot; '"
  }
  expect_failures = [var.revision]
}

run "small_volume" {
  command = plan
  variables {
    volume_size = 5
  }
  expect_failures = [var.volume_size]
}
