resource "azurerm_kubernetes_cluster" "this" {
  name                = var.cluster_name
  resource_group_name = azurerm_resource_group.this.name
  location            = azurerm_resource_group.this.location
  dns_prefix          = var.cluster_name
  kubernetes_version  = var.kubernetes_version
  sku_tier            = var.sku_tier

  # A node image that changes between two trials would be an effect of its own. No
  # automatic_upgrade_channel: versions stay as they were built.
  node_os_upgrade_channel = "None"
  # kubelets remove images by their own thresholds, and by nothing else.
  image_cleaner_enabled = false

  # Not tainted: ClusterLoader2's Grafana and all else that asks for no node runs here.
  default_node_pool {
    name                 = "system"
    vm_size              = var.system_vm_size
    node_count           = var.system_node_count
    orchestrator_version = var.kubernetes_version
    os_sku               = var.os_sku
    vnet_subnet_id       = azurerm_subnet.nodes.id
    tags                 = var.tags

    temporary_name_for_rotation = "systemtmp"

    upgrade_settings {
      max_surge = "10%"
    }
  }

  # Machines come by number, not by need: no cluster autoscaler, no node auto-provisioning.
  node_provisioning_profile {
    mode = "Manual"
  }

  identity {
    type = "SystemAssigned"
  }

  network_profile {
    network_plugin      = "azure"
    network_plugin_mode = "overlay"
    load_balancer_sku   = "standard"
    outbound_type       = "loadBalancer"
    pod_cidr            = var.pod_cidr
    service_cidr        = var.service_cidr
    dns_service_ip      = cidrhost(var.service_cidr, 10)
  }

  tags = var.tags
}

resource "azurerm_kubernetes_cluster_node_pool" "prometheus" {
  name                  = "prometheus"
  kubernetes_cluster_id = azurerm_kubernetes_cluster.this.id
  mode                  = "User"
  vm_size               = var.prometheus_vm_size
  node_count            = 1
  orchestrator_version  = var.kubernetes_version
  os_sku                = var.os_sku
  vnet_subnet_id        = azurerm_subnet.nodes.id
  node_labels           = var.prometheus_node_labels
  # Not NoSchedule: ClusterLoader2 puts the Prometheus operator here too, which does not tolerate
  # this taint (perf-tests, 0prometheus-operator-deployment.yaml) and would stay Pending for ever.
  node_taints = ["monitoring=true:PreferNoSchedule"]
  tags        = var.tags

  temporary_name_for_rotation = "promtmp"

  upgrade_settings {
    max_surge = "10%"
  }
}

# Another value of any of these is another pool of the same name. Rotation would build it twice.
resource "terraform_data" "measured_shape" {
  input = {
    vm_size         = var.measured_vm_size
    os_disk_type    = var.measured_os_disk_type
    os_disk_size_gb = var.measured_os_disk_size_gb
    max_pods        = var.measured_max_pods
    zones           = var.measured_zones
    os_sku          = var.os_sku
    image_gc        = [var.image_gc_high_threshold, var.image_gc_low_threshold]
  }
}

resource "azurerm_kubernetes_cluster_node_pool" "measured" {
  name                  = var.measured_pool_name
  kubernetes_cluster_id = azurerm_kubernetes_cluster.this.id
  mode                  = "User"
  vm_size               = var.measured_vm_size
  node_count            = var.measured_node_count
  orchestrator_version  = var.kubernetes_version
  os_sku                = var.os_sku
  os_disk_type          = var.measured_os_disk_type
  os_disk_size_gb       = var.measured_os_disk_size_gb
  max_pods              = var.measured_max_pods
  zones                 = length(var.measured_zones) > 0 ? var.measured_zones : null
  vnet_subnet_id        = azurerm_subnet.nodes.id
  node_labels           = var.measured_node_labels
  node_taints           = var.measured_node_taints
  tags                  = var.tags

  # All that AKS exposes of kubelet and that touches images. serializeImagePulls,
  # maxParallelImagePulls, registryPullQPS and registryBurst cannot be set.
  dynamic "kubelet_config" {
    for_each = var.image_gc_high_threshold == null ? [] : [true]

    content {
      image_gc_high_threshold = var.image_gc_high_threshold
      image_gc_low_threshold  = var.image_gc_low_threshold
    }
  }

  upgrade_settings {
    max_surge = "10%"
  }

  lifecycle {
    replace_triggered_by = [terraform_data.measured_shape]
  }

  # Prometheus's node is there before the many come.
  depends_on = [azurerm_kubernetes_cluster_node_pool.prometheus]
}
