# terraform -chdir=terraform init && terraform -chdir=terraform test
# Plan only, with a made-up provider: needs the provider's schema, no Azure.

mock_provider "azurerm" {}

variables {
  subscription_id          = "00000000-0000-0000-0000-000000000001"
  location                 = "eastus"
  resource_group_name      = "imgpull-test"
  cluster_name             = "imgpull-test"
  kubernetes_version       = "1.34"
  prometheus_node_labels   = { prometheus = "true" }
  measured_vm_size         = "Standard_D4ds_v5"
  measured_node_count      = 10
  measured_os_disk_type    = "Ephemeral"
  measured_os_disk_size_gb = 150
  measured_max_pods        = 110
  tags = {
    managed-by = "imgpull"
    owner      = "test"
    sweep      = "none"
    expiry     = "2026-11-25T18:00:00Z"
    imgpull-id = "test-000000"
  }
}

run "the_measured_pool_is_as_described" {
  command = plan

  assert {
    condition     = azurerm_kubernetes_cluster_node_pool.measured.node_count == 10
    error_message = "the number of nodes is not the one asked for"
  }
  assert {
    condition     = azurerm_kubernetes_cluster_node_pool.measured.vm_size == "Standard_D4ds_v5"
    error_message = "the machines are not those asked for"
  }
  assert {
    condition     = azurerm_kubernetes_cluster_node_pool.measured.os_disk_type == "Ephemeral"
    error_message = "images would land on another disk"
  }
  assert {
    condition     = length(azurerm_kubernetes_cluster_node_pool.measured.kubelet_config) == 0
    error_message = "kubelet is configured though nothing was asked for"
  }
}

run "nothing_changes_nodes_during_a_sweep" {
  command = plan

  assert {
    condition     = azurerm_kubernetes_cluster.this.node_os_upgrade_channel == "None"
    error_message = "node images would change by themselves"
  }
  assert {
    condition     = azurerm_kubernetes_cluster.this.image_cleaner_enabled == false
    error_message = "images would vanish by themselves"
  }
}

run "everything_is_tagged" {
  command = plan

  assert {
    condition = alltrue([for tags in [
      azurerm_resource_group.this.tags,
      azurerm_virtual_network.this.tags,
      azurerm_kubernetes_cluster.this.tags,
      azurerm_kubernetes_cluster.this.default_node_pool[0].tags,
      azurerm_kubernetes_cluster_node_pool.prometheus.tags,
      azurerm_kubernetes_cluster_node_pool.measured.tags,
    ] : tags["managed-by"] == "imgpull" && tags["expiry"] == "2026-11-25T18:00:00Z"])
    error_message = "the janitor would not find something"
  }
}

run "the_prometheus_operator_is_not_shut_out" {
  command = plan

  assert {
    condition     = alltrue([for taint in azurerm_kubernetes_cluster_node_pool.prometheus.node_taints : endswith(taint, ":PreferNoSchedule")])
    error_message = "ClusterLoader2's operator tolerates no taint of ours"
  }
}

run "no_registry_is_made_unless_asked_for" {
  command = plan

  assert {
    condition     = length(azurerm_container_registry.this) == 0 && length(azurerm_role_assignment.pull) == 0
    error_message = "a registry was made"
  }
}

run "a_registry_that_is_made_may_be_pulled_from" {
  command = plan

  variables {
    registry_name = "imgpulltest"
    registry_sku  = "Standard"
  }

  assert {
    condition     = azurerm_container_registry.this[0].admin_enabled == false
    error_message = "the registry has a password"
  }
  assert {
    condition     = azurerm_role_assignment.pull[0].role_definition_name == "AcrPull"
    error_message = "nodes could not pull"
  }
}

run "a_registry_elsewhere_may_be_pulled_from" {
  command = plan

  variables {
    registry_id = "/subscriptions/00000000-0000-0000-0000-000000000002/resourceGroups/images/providers/Microsoft.ContainerRegistry/registries/shared"
  }

  assert {
    condition     = length(azurerm_container_registry.this) == 0
    error_message = "a registry was made though one is there"
  }
  assert {
    condition     = azurerm_role_assignment.pull[0].scope == var.registry_id
    error_message = "the role is not the one on that registry"
  }
}

run "address_ranges_may_not_overlap" {
  command = plan

  variables {
    pod_cidr = "10.224.64.0/18"
  }

  expect_failures = [var.pod_cidr]
}

run "tags_that_the_janitor_needs_are_asked_for" {
  command = plan

  variables {
    tags = { managed-by = "imgpull" }
  }

  expect_failures = [var.tags]
}

run "geo_replicas_need_premium" {
  command = plan

  variables {
    registry_name              = "imgpulltest"
    registry_sku               = "Standard"
    registry_replica_locations = ["westeurope"]
  }

  expect_failures = [var.registry_replica_locations]
}
